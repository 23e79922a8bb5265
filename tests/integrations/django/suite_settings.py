"""The settings of Django's own tests, for one of the databases."""

import json
import os

SECRET_KEY = "for tests"
USE_TZ = True
INSTALLED_APPS = ["dbtaskqueue.integrations.django"]
DATABASES = {"default": json.loads(os.environ["DATABASE"])}
if DATABASES["default"]["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.install_as_MySQLdb()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
