"""Bearer tokens: names, scopes, digests; a file of them that changes while the endpoint runs; what the log says."""

import hashlib
import json

import pytest
from local_endpoint import served
from serving import ask, picture

from yolov7_ray.errors import Corrupt, JobError, NotFound
from yolov7_ray.jobs.job_file import validate
from yolov7_ray.jobs.kinds import kind_of
from yolov7_ray.serve.access.spec import Token
from yolov7_ray.serve.access.tokens import Tokens
from yolov7_ray.serve.limits import RequestError
from yolov7_ray.serve.spec import tokens_of

SECRET_SHA256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # printf secret | sha256sum


def entry(token: str, *scopes: str) -> dict:
    return {"sha256": hashlib.sha256(token.encode()).hexdigest(), "scopes": list(scopes or ("detect",))}


def known(**tokens: dict) -> Tokens:
    return Tokens({name: Token(**token) for name, token in tokens.items()})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- over HTTP -------------------------------------------------------------------------------------------


def test_each_token_opens_what_its_scopes_say():
    tokens = known(a=entry("one"), b=entry("two", "metrics"), c=entry("three", "admin"), d={"sha256": SECRET_SHA256})
    with served(tokens=tokens) as endpoint:
        def statuses(path: str) -> list[int]:
            return [ask(endpoint.url + path, **bearer(token)).status for token in
                    ("one", "two", "three", "secret", "other")]

        assert statuses("/v1/models") == [200, 403, 200, 200, 401]
        assert statuses("/metrics") == [403, 200, 200, 403, 401]
        assert statuses("/healthz") == [200] * 5
        assert ask(f"{endpoint.url}/v1/models").status == ask(f"{endpoint.url}/metrics").status == 401
        answer = ask(f"{endpoint.url}/v1/models", **bearer("two"))
        assert answer.json["error"] | {"request_id": ""} == {
            "where": "authorization", "problem": "token 'b' has the scopes metrics",
            "remedy": "use one with the scope detect", "request_id": ""}
        assert "www-authenticate" not in answer.headers


def test_metrics_are_open_where_no_token_is_for_them():
    with served(tokens=known(a=entry("one"), c=entry("three", "admin"))) as endpoint:
        assert ask(f"{endpoint.url}/metrics").status == 200


def test_the_log_names_the_token_and_never_holds_it(capfd):
    with served(tokens=known(ci=entry("sesame")), access_log="all") as endpoint:
        ask(f"{endpoint.url}/v1/detect", picture(), **bearer("sesame"))
        ask(f"{endpoint.url}/v1/detect", picture(), **bearer("barley"))
        ask(f"{endpoint.url}/healthz", **bearer("sesame"))
    output = capfd.readouterr().out
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [(line["status"], line.get("token")) for line in lines] == [(200, "ci"), (401, None), (200, None)]
    assert "sesame" not in output and "barley" not in output and entry("sesame")["sha256"] not in output


# --- a file of tokens ------------------------------------------------------------------------------------


def test_tokens_come_and_go_with_the_file(tmp_path, capfd):
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"ci": entry("old")}))
    tokens = Tokens({"job": Token(**entry("own", "admin"))}, str(file))
    tokens.look()
    assert [tokens.check(token, "detect") for token in ("own", "old")] == ["job", "ci"]
    file.write_text(json.dumps({"ci": entry("old"), "ci-2": entry("new", "detect", "metrics")}))
    tokens.look()
    assert [tokens.check(token, "detect") for token in ("own", "old", "new")] == ["job", "ci", "ci-2"]
    file.write_text(json.dumps({"ci-2": entry("new")}))
    tokens.look()
    with pytest.raises(RequestError, match="bearer token is wrong"):
        tokens.check("old", "detect")
    for damage in ("{", "[]", '{"ci": {"sha256": "12"}}', '{"ci": {"env": "X"}}', '{"c i": {}}'):
        file.write_text(damage)
        tokens.look()
        tokens.look()
        told = capfd.readouterr().out
        assert told.count("\n") == 1 and told.startswith(f"serve: tokens stay as they were: {file}: "), told
        assert tokens.check("new", "detect") == "ci-2"
        with pytest.raises(Corrupt):
            tokens.read()
    file.write_text("{}")
    tokens.look()
    for token in ("new", "old", None):
        with pytest.raises(RequestError):
            tokens.check(token, "detect")
    assert tokens.check("own", "metrics") == ""
    assert tokens.check("own", "admin") == "job" and capfd.readouterr().out == ""


def test_an_endpoint_whose_file_names_none_is_closed(tmp_path):
    file = tmp_path / "tokens.json"
    file.write_text("{}")
    with served(tokens=Tokens(uri=str(file))) as endpoint:
        assert ask(f"{endpoint.url}/v1/models").status == 401
    with pytest.raises(NotFound):
        Tokens(uri=str(tmp_path / "none.json")).read()


# --- in a job --------------------------------------------------------------------------------------------


def serve_job(**more) -> dict:
    return {"kind": "serve", "models": {"a": {"model": "a@latest"}}, "registry": "s3://bucket/registry"} | more


def test_tokens_are_sent_as_their_digests(monkeypatch):
    """What goes to a cluster needs no variable there, also within a pipeline."""
    keys = {"token_env": "YOLOV7_TEST_SECRET", "tokens": {
        "ci": {"env": "YOLOV7_TEST_SECRET", "scopes": ["metrics"]}, "ops": {"sha256": "0" * 64, "scopes": ["admin"]}}}
    job = validate(serve_job(**keys), "job.yaml")
    pipeline = validate({"kind": "pipeline", "steps": {"serve": serve_job(**keys)}}, "job.yaml")
    for sent in (job, pipeline):
        monkeypatch.setenv("YOLOV7_TEST_SECRET", "secret")
        sent = kind_of(sent).sent(sent)
        monkeypatch.delenv("YOLOV7_TEST_SECRET")
        assert "SECRET" not in sent.model_dump_json()
        sent = sent if sent.kind == "serve" else sent.steps["serve"]
        assert {name: (token.sha256, token.scopes) for name, token in tokens_of(sent).items()} == {
            "token": (SECRET_SHA256, ["detect", "admin"]), "ci": (SECRET_SHA256, ["metrics"]),
            "ops": ("0" * 64, ["admin"])}


def test_a_token_that_is_not_set_here_is_named_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("YOLOV7_TEST_SECRET", raising=False)
    for keys, where in (({"token_env": "YOLOV7_TEST_SECRET"}, "token_env"),
                        ({"tokens": {"ci": {"env": "YOLOV7_TEST_SECRET"}}}, "tokens.ci.env")):
        job = validate(serve_job(**keys), "job.yaml")
        with pytest.raises(JobError, match=f"^{where}: environment variable YOLOV7_TEST_SECRET is not set"):
            kind_of(job).sent(job)
    for wrong, problem in (({"token_env": "A", "token_sha256": SECRET_SHA256}, "token_env and token_sha256 are both given"),
                           ({"tokens": {"a": {}}}, "give either env or sha256"),
                           ({"tokens": {"a": {"env": "A", "sha256": "0" * 64}}}, "give either env or sha256"),
                           ({"tokens": {"a": {"env": "A", "scopes": ["all"]}}}, "tokens.a.scopes"),
                           ({"tokens": {"a": {"env": "A", "scopes": []}}}, "tokens.a.scopes")):
        with pytest.raises(JobError, match=problem):
            validate(serve_job(**wrong), "job.yaml")
