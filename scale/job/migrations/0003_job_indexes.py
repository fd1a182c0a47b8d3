from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):

    # Jobs can be many; the indexes are built beside the work.
    atomic = False

    dependencies = [
        ('job', '0002_bulk_actions'),
    ]

    operations = [
        # Who was killed in it begins again, and finds what was made, perhaps half.
        migrations.RunSQL(
            [
                'DROP INDEX CONCURRENTLY IF EXISTS job_by_status_change',
                'DROP INDEX CONCURRENTLY IF EXISTS job_failed',
            ],
            migrations.RunSQL.noop,
        ),
        AddIndexConcurrently(
            model_name='job',
            index=models.Index(models.F('last_status_change'), models.F('id'), name='job_by_status_change'),
        ),
        AddIndexConcurrently(
            model_name='job',
            index=models.Index(models.F('error'), models.F('job_type'), models.F('last_status_change'), condition=models.Q(('error__isnull', False)), name='job_failed'),
        ),
    ]
