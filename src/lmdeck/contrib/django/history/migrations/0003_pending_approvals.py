"""Runs that wait for decisions on their tool calls."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """One table, and the help text of a column."""

    dependencies = [("lmdeck_history", "0002_endings")]

    operations = [
        migrations.AlterField(
            model_name="message",
            name="ended",
            field=models.CharField(
                blank=True,
                default="",
                help_text="How an incomplete answer ended: stopped, cut, failed or paused.",
                max_length=20,
                verbose_name="ended",
            ),
        ),
        migrations.CreateModel(
            name="PendingApproval",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("run", models.CharField(max_length=64, unique=True, verbose_name="run")),
                ("body", models.TextField(verbose_name="paused run")),
                ("created", models.DateTimeField(auto_now_add=True, db_index=True, verbose_name="created")),
                (
                    "conversation",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pending_approvals",
                        to="lmdeck_history.conversation",
                        verbose_name="conversation",
                    ),
                ),
            ],
            options={
                "verbose_name": "pending approval",
                "verbose_name_plural": "pending approvals",
                "ordering": ("created",),
            },
        ),
    ]
