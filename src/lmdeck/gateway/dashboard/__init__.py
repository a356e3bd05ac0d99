"""The dashboard in the browser: hosts, queues, open requests, charts, failures and usage."""
