from django.db import models


class Order(models.Model):
    address = models.CharField(max_length=200)
    receipt = models.TextField(blank=True)
    runs = models.IntegerField(default=0)
