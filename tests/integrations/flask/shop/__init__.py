"""A shop with an application factory, Flask-SQLAlchemy, and a FlaskTaskQueue in the same database."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask

from .models import db
from .queues import tasks


def create_app(**config: Any) -> Flask:
    """Create the application. Its databases are those of the environment, unless the config names others."""
    app = Flask(__name__)
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI=os.environ.get("SHOP_DATABASE"),
        DBTASKQUEUE_URL=os.environ.get("SHOP_TASKS"),
        DBTASKQUEUE_QUEUE="shop",
    )
    app.config.from_mapping(config)
    db.init_app(app)
    tasks.init_app(app)
    with app.app_context():
        db.create_all()  # leaves a connection in the pool

    from .orders import routes

    app.register_blueprint(routes)

    @tasks.task(name="count")
    def count() -> list[Any]:
        return [app.name, db.session.query(db.metadata.tables["orders"]).count()]

    return app
