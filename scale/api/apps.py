from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class ApiConfig(AppConfig):
    name = "scale.api"
    label = "api"

    def ready(self) -> None:
        """Have the roles made when all permissions are: with the last app that has models."""
        from scale.api.permissions import make_roles

        post_migrate.connect(make_roles, sender=apps.get_app_config("scheduler"))
