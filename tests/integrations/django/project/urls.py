from django.contrib import admin
from django.urls import path
from shop import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("orders/new", views.create_order),
    path("orders/split", views.split_order),
    path("results/<id>", views.result),
]
