"""How an incomplete answer ended, and ids of calls of any length."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Two columns."""

    dependencies = [("lmdeck_history", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="message",
            name="ended",
            field=models.CharField(
                blank=True,
                default="",
                help_text="How an incomplete answer ended: stopped, cut or failed.",
                max_length=20,
                verbose_name="ended",
            ),
        ),
        migrations.AlterField(
            model_name="toolcall",
            name="call_id",
            field=models.TextField(verbose_name="id of the call"),
        ),
    ]
