"""Conversations, messages, tool calls and usage."""

import uuid

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """The first tables."""

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Conversation",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("title", models.CharField(blank=True, max_length=200, verbose_name="title")),
                ("model", models.CharField(blank=True, max_length=200, verbose_name="model")),
                ("created", models.DateTimeField(auto_now_add=True, verbose_name="created")),
                ("updated", models.DateTimeField(auto_now=True, db_index=True, verbose_name="updated")),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="lmdeck_conversations",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "conversation",
                "verbose_name_plural": "conversations",
                "ordering": ("-updated",),
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveIntegerField(verbose_name="position")),
                (
                    "role",
                    models.CharField(
                        choices=[("system", "system"), ("user", "user"), ("assistant", "assistant")],
                        max_length=16,
                        verbose_name="role",
                    ),
                ),
                ("content", models.TextField(blank=True, verbose_name="content")),
                ("reasoning", models.TextField(blank=True, verbose_name="reasoning")),
                ("model", models.CharField(blank=True, max_length=200, verbose_name="model")),
                (
                    "finish_reason",
                    models.CharField(
                        blank=True,
                        help_text="Empty if the answer was interrupted.",
                        max_length=40,
                        verbose_name="finish reason",
                    ),
                ),
                ("created", models.DateTimeField(auto_now_add=True, verbose_name="created")),
                (
                    "conversation",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="messages",
                        to="lmdeck_history.conversation",
                        verbose_name="conversation",
                    ),
                ),
            ],
            options={
                "verbose_name": "message",
                "verbose_name_plural": "messages",
                "ordering": ("conversation", "position"),
            },
        ),
        migrations.CreateModel(
            name="ToolCall",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("call_id", models.CharField(max_length=200, verbose_name="id of the call")),
                ("name", models.CharField(db_index=True, max_length=200, verbose_name="name")),
                ("arguments", models.JSONField(blank=True, default=dict, verbose_name="arguments")),
                ("result", models.TextField(blank=True, null=True, verbose_name="result")),
                ("failed", models.BooleanField(default=False, verbose_name="failed")),
                ("seconds", models.FloatField(blank=True, null=True, verbose_name="seconds")),
                (
                    "message",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="tool_calls",
                        to="lmdeck_history.message",
                        verbose_name="message",
                    ),
                ),
            ],
            options={
                "verbose_name": "tool call",
                "verbose_name_plural": "tool calls",
                "ordering": ("pk",),
            },
        ),
        migrations.CreateModel(
            name="Usage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("model", models.CharField(blank=True, max_length=200, verbose_name="model")),
                ("prompt_tokens", models.PositiveIntegerField(default=0, verbose_name="prompt tokens")),
                ("completion_tokens", models.PositiveIntegerField(default=0, verbose_name="completion tokens")),
                (
                    "time_to_first_token",
                    models.FloatField(blank=True, null=True, verbose_name="seconds to the first token"),
                ),
                ("tokens_per_second", models.FloatField(blank=True, null=True, verbose_name="tokens per second")),
                ("created", models.DateTimeField(auto_now_add=True, db_index=True, verbose_name="created")),
                (
                    "message",
                    models.OneToOneField(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="usage",
                        to="lmdeck_history.message",
                        verbose_name="message",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="lmdeck_usage",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "usage",
                "verbose_name_plural": "usage",
                "ordering": ("-created",),
            },
        ),
        migrations.AddConstraint(
            model_name="message",
            constraint=models.UniqueConstraint(fields=("conversation", "position"), name="lmdeck_message_position"),
        ),
    ]
