from django.apps import AppConfig


class JobConfig(AppConfig):
    name = "scale.job"
    label = "job"
