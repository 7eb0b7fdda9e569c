"""A Django project in one file: `python examples/django_project.py runserver`."""

import os
import sys

import django
from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from llm_sse import stream_sync
from llm_sse.web.django import sse_response

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    DEBUG=bool(os.environ.get("DEBUG")),
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY") or os.urandom(32).hex(),
)
django.setup()


@csrf_exempt  # there is no session here that another site's page could use
@require_POST
def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Answer the prompt of a form, token by token."""
    prompt = request.POST.get("prompt", "")
    if not 0 < len(prompt) <= 10_000:
        raise BadRequest("there is no prompt, or too much of it")
    return sse_response(stream_sync(prompt))


urlpatterns = [path("stream", stream)]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
