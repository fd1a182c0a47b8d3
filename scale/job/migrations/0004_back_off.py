"""Job types whose launches fail wait before the next; clean-ups have a deadline."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("job", "0003_job_indexes")]
    operations = [
        migrations.AddField("jobtype", "launch_failures", models.PositiveIntegerField(default=0)),
        migrations.AddField("jobtype", "launch_after", models.DateTimeField(null=True)),
        migrations.AddField("jobexecution", "cleanup_deadline", models.DateTimeField(null=True)),
    ]
