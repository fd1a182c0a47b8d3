"""The scheduler's one row exists from the start, so that nobody races to make it."""

from django.db import migrations


def add(apps, schema_editor):
    apps.get_model("scheduler", "SchedulerState").objects.get_or_create(id=1)


class Migration(migrations.Migration):
    dependencies = [("scheduler", "0001_initial")]
    operations = [migrations.RunPython(add, migrations.RunPython.noop)]
