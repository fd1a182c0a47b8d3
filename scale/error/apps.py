from django.apps import AppConfig


class ErrorConfig(AppConfig):
    name = "scale.error"
    label = "error"
