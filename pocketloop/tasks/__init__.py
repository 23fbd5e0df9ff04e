"""What a task is: how an example becomes a prompt, and how an answer is parsed and scored."""
