"""An application with a tool."""
