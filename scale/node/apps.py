from django.apps import AppConfig


class NodeConfig(AppConfig):
    name = "scale.node"
    label = "node"
