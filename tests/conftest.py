"""What every test folder may use; being here puts this folder on the import path, for `loopback`."""

pytest_plugins = ["engine_fixtures"]
