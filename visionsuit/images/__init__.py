"""Image pages: list, show, edit, delete; pictures with their recipe. Start reading at service.py."""
