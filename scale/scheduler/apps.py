from django.apps import AppConfig


class SchedulerConfig(AppConfig):
    name = "scale.scheduler"
    label = "scheduler"
