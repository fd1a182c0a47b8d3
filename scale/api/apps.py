from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "scale.api"
    label = "api"
