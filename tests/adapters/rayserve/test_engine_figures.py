"""An engine's own figures, as Prometheus' parser reads what becomes of them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.adapters.rayserve.engine_figures import Figures, labelled, read
from orchestrator.core.spec.engines import MetricNames

TEXT = """\
# HELP vllm:num_requests_running Requests that run.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a } b"} 2.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 120.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:kv_cache_usage_perc{engine="1"} 0.25
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="100"} 1.0
# TYPE up gauge
up 1
odd NaN
"""
NAMES = MetricNames(
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    tokens=("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    cache_used="vllm:kv_cache_usage_perc",
    cache_size="vllm:cache_config_info",
    cache_labels=("num_gpu_blocks", "block_size"),
)


def test_figures_of_all_engines_of_a_server_count() -> None:
    ranks = {frozenset({("engine", "0"), ("model_name", "m")}): (3.0, 120.0)}
    assert read(TEXT, NAMES) == Figures(
        running=4.0, waiting=2.0, tokens=120.0, cache_used=0.375, cached_tokens=1200.0, ranks=ranks
    )


def test_what_is_not_told_is_nothing_and_tokens_are_unknown() -> None:
    assert read("", NAMES) == Figures()
    assert read('vllm:cache_config_info{block_size="None"} 1\n', NAMES).cached_tokens == 0.0
    size = MetricNames(cache_used="used", cache_size="size")
    assert read("used 0.5\nsize 80\n", size).cached_tokens == 40.0


def test_answers_that_the_engine_takes_for_wrong_are_counted() -> None:
    names = MetricNames(suspect=("wrong_total", "odd_total"))
    assert read('wrong_total 2\nodd_total{engine="1"} 1\n', names).suspect == 3.0


def test_each_sample_gets_the_labels_of_its_place_beside_its_own() -> None:
    text = labelled(TEXT, {"endpoint": "chat", "replica": 'a"b'})
    plain = {s.name: s for f in text_string_to_metric_families(TEXT) for s in f.samples}
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    assert len(samples) == 10
    for sample in samples:
        assert sample.labels.pop("endpoint") == "chat"
        assert sample.labels.pop("replica") == 'a"b'
        assert sample.labels.keys() == plain[sample.name].labels.keys()
    assert text.count("# TYPE") == TEXT.count("# TYPE")
