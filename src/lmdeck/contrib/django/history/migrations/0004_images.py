"""The images of questions."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """One column."""

    dependencies = [("lmdeck_history", "0003_pending_approvals")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="images",
            field=models.JSONField(blank=True, default=list, help_text="Data URIs.", verbose_name="images"),
        ),
    ]
