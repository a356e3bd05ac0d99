"""Django's commands for the example: `python examples/django_chat/manage.py lmdeck doctor`."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat_site.settings")
    execute_from_command_line(sys.argv)
