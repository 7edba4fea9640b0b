"""Flask and Django as they are, with what they keep in a real server: applications as their programmers write them."""

from __future__ import annotations

import pytest
from helpers import run_script
from libraries import needs_rescue

# The libraries block: without the GIL who waits for the database holds up who has what it waits for.
pytestmark = needs_rescue

# Serves `application`, asks for /1 to /20 at once, and prints the answers.
ASKING = """
import urllib.request
import offset
from offset import errgroup, makechan, wsgi
from offset.context import with_cancel, background

def main():
    ready = makechan(1)
    ctx, cancel = with_cancel(background())
    server = offset.go(wsgi.serve, application, "127.0.0.1:0", ready=ready, stop=ctx)
    address = ready.recv()

    def ask(number):
        with urllib.request.urlopen(f"http://{address}/{number}", timeout=60) as answer:
            return answer.read().decode()

    with errgroup.Group() as group:
        print(*group.map(ask, range(1, 21)))
    with urllib.request.urlopen(f"http://{address}/all", timeout=60) as answer:
        print(answer.read().decode())
    cancel()
    server.join()

offset.run(main)
"""

DJANGO = """
import sys
import django
from django.conf import settings

host, port, user, password = sys.argv[1:]
database = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": user, "PASSWORD": password}
settings.configure(
    DATABASES={"default": {**database, "HOST": host, "PORT": port}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="a",
)
django.setup()

from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.http import HttpResponse
from django.urls import path

class Visit(models.Model):
    number = models.IntegerField(unique=True)

    class Meta:
        app_label = "here"
        db_table = "visits_of_a_test"

def visit(request, number):
    with transaction.atomic():
        made = Visit.objects.create(number=number)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.05)")
    return HttpResponse(f"{number}:{Visit.objects.get(pk=made.pk).number}")

def everything(request):
    return HttpResponse(str(sum(Visit.objects.values_list("number", flat=True))))

urlpatterns = [path("all", everything), path("<int:number>", visit)]
application = get_wsgi_application()
with connection.schema_editor() as editor:
    editor.execute("DROP TABLE IF EXISTS visits_of_a_test")
    editor.create_model(Visit)
connection.close()
"""

FLASK = """
import contextlib, sys
import flask, pymysql

host, port, user, password = sys.argv[1:]
application = flask.Flask(__name__)

def connection():
    if "connection" not in flask.g:
        flask.g.connection = pymysql.connect(host=host, port=int(port), user=user, password=password, database="test")
    return flask.g.connection

@application.teardown_appcontext
def close(error):
    if (made := flask.g.pop("connection", None)) is not None:
        made.close()

@application.get("/<int:number>")
def visit(number):
    with connection().cursor() as cursor:
        cursor.execute("INSERT INTO visits_of_a_test VALUES (%s)", [number])
        cursor.execute("SELECT SLEEP(0.05)")
        cursor.execute("SELECT number FROM visits_of_a_test WHERE number = %s", [number])
        (found,) = cursor.fetchone()
    connection().commit()
    return f"{number}:{found}"

@application.get("/all")
def everything():
    with connection().cursor() as cursor:
        cursor.execute("SELECT SUM(number) FROM visits_of_a_test")
        return str(cursor.fetchone()[0])

made = pymysql.connect(host=host, port=int(port), user=user, password=password)
with contextlib.closing(made), made.cursor() as cursor:
    cursor.execute("CREATE DATABASE IF NOT EXISTS test")
    cursor.execute("CREATE OR REPLACE TABLE test.visits_of_a_test (number INT PRIMARY KEY)")
"""


def check(program, server):
    ended = run_script(program + ASKING, server.host, server.port, server.user, server.password)
    answers = " ".join(f"{number}:{number}" for number in range(1, 21))
    assert (ended.returncode, ended.stdout) == (0, f"{answers}\n{sum(range(1, 21))}\n"), ended.stderr


def test_django_with_postgresql(postgres_server):
    pytest.importorskip("django")
    pytest.importorskip("psycopg")
    check(DJANGO, postgres_server)


def test_flask_with_mariadb(mariadb_server):
    pytest.importorskip("flask")
    pytest.importorskip("pymysql")
    check(FLASK, mariadb_server)
