"""django-oauth-toolkit in one file: its token endpoint over TLS, and its clients.

usage: python django_provider.py FOLDER serve PORT
       python django_provider.py FOLDER secret CLIENT FILE    another secret, from a file
       python django_provider.py FOLDER remove CLIENT

FOLDER holds server.pem, server.key and the clients' `client.secret`; the database is
FOLDER/django.db, and FOLDER/django.there is made once the endpoint answers.
"""

import ssl
import sys
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import include, path

folder, action, *arguments = Path(sys.argv[1]), *sys.argv[2:]

settings.configure(
    SECRET_KEY="only for a test",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["localhost"],
    # It tells the length of an answer, as in every Django project.
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "oauth2_provider"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "django.db"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    OAUTH2_PROVIDER={"SCOPES": {"read": "read"}, "ACCESS_TOKEN_EXPIRE_SECONDS": 300},
)
django.setup()
urlpatterns = [path("o/", include("oauth2_provider.urls", namespace="oauth2_provider"))]

from oauth2_provider.models import Application  # noqa: E402: settings come first


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def secret(name):
    return (folder / name).read_text().rstrip("\n")


def serve(port):
    call_command("migrate", verbosity=0)
    for client in ["basic", "post", "revoked"]:
        Application.objects.create(
            client_id=client,
            client_secret=secret("client.secret"),
            client_type="confidential",
            authorization_grant_type="client-credentials",
        )
    server = make_server("localhost", int(port), get_wsgi_application(), WSGIServer, QuietHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    (folder / "django.there").touch()
    server.serve_forever()


def change(client, file):
    application = Application.objects.get(client_id=client)
    application.client_secret = secret(file)
    application.save()


match action:
    case "serve":
        serve(*arguments)
    case "secret":
        change(*arguments)
    case "remove":
        Application.objects.get(client_id=arguments[0]).delete()
    case _:
        sys.exit(__doc__)
