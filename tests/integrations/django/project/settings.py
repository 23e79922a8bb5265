"""Settings of the project. The test chooses the database with SHOP_DATABASE, a URL, and options with SHOP_SETTINGS."""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

BASE = Path(__file__).parent
SECRET_KEY = "for tests only"
DEBUG = False
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"django.request": {"level": "CRITICAL"}}}
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
ROOT_URLCONF = "urls"
STATIC_URL = "static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "dbtaskqueue.integrations.django",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def database(url):
    """Return Django's settings of a database for the URL of one of dbtaskqueue's engines."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        file = parts.path.removeprefix("/")
        options = {"transaction_mode": "IMMEDIATE", "timeout": 30}
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": file,
            "OPTIONS": options,
            "TEST": {"NAME": f"{file}.test"},
        }
    engine = "postgresql" if parts.scheme == "postgresql" else "mysql"
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username or "",
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "OPTIONS": {},
    }


DATABASES = {"default": database(os.environ.get("SHOP_DATABASE", f"sqlite:///{BASE}/site.sqlite"))}
if DATABASES["default"]["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.install_as_MySQLdb()
TASKS = {
    "default": {
        "BACKEND": "dbtaskqueue.integrations.django.DatabaseBackend",
        "QUEUES": ["default", "mail"],
    }
}
for name, value in json.loads(os.environ.get("SHOP_SETTINGS", "{}")).items():
    path = name.split(".")
    place = globals()
    for part in path[:-1]:
        place = place.setdefault(part, {})
    place[path[-1]] = value
