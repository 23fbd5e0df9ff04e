import json
from datetime import UTC, datetime
from pathlib import Path

from pocketloop.data.active import daily_devices
from pocketloop.data.event_log import import_file


def _event(number: int, device: str, day: int) -> str:
    return json.dumps(
        {
            "event_id": f"e{number}",
            "device_id": device,
            "ts": f"2026-11-{day:02d}T10:00:00Z",
            "adapter": {"skill": "functions"},
            "consent": {"training": True, "policy": "2026-01"},
            "messages": [{"role": "user", "content": "hello"}],
        }
    )


def test_active_devices_are_counted_once_a_day_and_averaged_over_the_newest_days(tmp_path: Path) -> None:
    seen = [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("a", 2), ("b", 3), ("c", 3)]
    posted = tmp_path / "posted.jsonl"
    posted.write_text("\n".join(_event(n, device, day) for n, (device, day) in enumerate(seen)))
    assert daily_devices(tmp_path / "log") == 0
    import_file(posted, tmp_path / "log", datetime(2026, 11, 4, tzinfo=UTC))
    assert daily_devices(tmp_path / "log") == 2
    assert daily_devices(tmp_path / "log", days=2) == round(1.5)
    assert daily_devices(tmp_path / "log", days=1) == 2
