from django.db import transaction
from django.http import JsonResponse
from django.tasks import default_task_backend

from shop.models import Order
from shop.tasks import write_receipt


def create_order(request):
    """Create an order and its task, in the transaction of the request. ?fails=1 raises after that."""
    order = Order.objects.create(address=request.GET["address"])
    result = write_receipt.enqueue(order.id)
    inside = default_task_backend.get_result(result.id).status
    if "fails" in request.GET:
        raise ValueError("refused")
    return JsonResponse({"order": order.id, "task": result.id, "inside": inside})


def split_order(request):
    """Create two orders, the second of which is rolled back to a savepoint."""
    with transaction.atomic():
        first = write_receipt.enqueue(Order.objects.create(address="first").id)
        try:
            with transaction.atomic():
                write_receipt.enqueue(Order.objects.create(address="second").id)
                raise ValueError("refused")
        except ValueError:
            pass
        third = write_receipt.enqueue(Order.objects.create(address="third").id)
    return JsonResponse({"tasks": [first.id, third.id]})


def result(request, id):
    found = default_task_backend.get_result(id)
    value = found.return_value if found.status == "SUCCESSFUL" else None
    return JsonResponse({"status": found.status, "value": value, "errors": len(found.errors)})
