"""The parts of demo.py, each a file; the bot itself is app.py, worker.py and payloads.py."""
