from django.apps import AppConfig


class QueueConfig(AppConfig):
    name = "scale.queue"
    label = "queue"
