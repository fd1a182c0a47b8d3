import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("job", "0001_initial"),
        ("scheduler", "0003_trouble"),
    ]

    operations = [
        migrations.AddField(
            model_name="schedulerstate",
            name="figures",
            field=models.JSONField(default=dict),
        ),
        migrations.CreateModel(
            name="WaitingShape",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("needs_millicpus", models.PositiveIntegerField()),
                ("needs_mem_mib", models.PositiveIntegerField()),
                ("needs_disk_mib", models.PositiveIntegerField()),
                ("code", models.CharField(max_length=50)),
                ("message", models.TextField()),
                ("since", models.DateTimeField()),
                (
                    "job_type",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="job.jobtype",
                    ),
                ),
            ],
            options={
                "db_table": "waiting_shape",
                "constraints": [
                    models.UniqueConstraint(
                        fields=(
                            "job_type",
                            "needs_millicpus",
                            "needs_mem_mib",
                            "needs_disk_mib",
                        ),
                        name="waiting_shape_once",
                    )
                ],
            },
        ),
    ]
