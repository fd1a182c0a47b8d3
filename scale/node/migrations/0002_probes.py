"""Nodes on which everything fails are set aside until a probe ends well."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("node", "0001_initial")]
    operations = [
        migrations.AddField("node", "failed_jobs", models.JSONField(default=list)),
        migrations.AddField(
            "node", "probe_task_id", models.CharField(max_length=80, default="", blank=True)
        ),
        migrations.AddField("node", "probe_at", models.DateTimeField(null=True)),
    ]
