"""Base models, chat templates, and generators that run them."""
