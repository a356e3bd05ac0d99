"""The chat is the first page."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("", include("lmdeck.contrib.django.urls"))]
