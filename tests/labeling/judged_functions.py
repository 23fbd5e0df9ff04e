"""The functions that answers in these tests may call."""

from typing import Any

CATALOGUE: dict[str, Any] = {
    "functions": [
        {
            "name": "send_message",
            "description": "Send a text.",
            "parameters": {
                "type": "object",
                "properties": {
                    "recipient": {"type": "string", "x-pii": "PERSON"},
                    "text": {"type": "string"},
                    "urgency": {"type": "string", "enum": ["low", "high"], "x-grounded": False},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["recipient"],
            },
        },
        {
            "name": "set_timer",
            "description": "Set a timer.",
            "parameters": {
                "type": "object",
                "properties": {"minutes": {"type": "integer", "minimum": 1}},
                "required": ["minutes"],
            },
        },
    ]
}
