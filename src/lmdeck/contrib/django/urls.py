"""The chat page: `path("chat/", include("lmdeck.contrib.django.urls"))`."""

from django.urls import path

from lmdeck.contrib.django.views import AskView, ConversationsView, ConversationView, PageView, StateView

app_name = "lmdeck"
urlpatterns = [
    path("", PageView.as_view(), name="page"),
    path("ask/", AskView.as_view(), name="ask"),
    path("state/", StateView.as_view(), name="state"),
    path("conversations/", ConversationsView.as_view(), name="conversations"),
    path("conversations/<uuid:key>/", ConversationView.as_view(), name="conversation"),
]
