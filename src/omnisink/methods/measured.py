"""What a recorder measures: names, dimensions and meanings."""

from __future__ import annotations

#: Every measurement, its dimensions after ``sequence`` and ``layer``, and what it is. Means run over real tokens that
#: are no sink, except where it says otherwise. Where a layer has no sink, what speaks of one is NaN.
MEASURED: dict[str, tuple[tuple[str, ...], str]] = {
    "marked": (("criterion", "token"), "tokens that each criterion marks"),
    "magnitude": (("token",), "largest |h| of each token as it enters the layer"),
    "channel_peak": (("channel",), "largest |h| / RMS of any token"),
    "mass": (("head", "set"), "mean attention to each set"),
    "mass_by_token": (("set", "token"), "attention of each token to each set, mean over heads"),
    "received": (("token",), "attention each token receives from those that can see it, mean over them and heads"),
    "received_most": (("head",), "largest mean attention that one token receives"),
    "received_where": (("head",), "the token that receives it"),
    "split_error": ((), "largest |o_sink + o_rest - o| relative to the largest |o|, on a sample of rows"),
    "sink_share": (("head",), "mean of o_sink . o / |o|^2: the sinks' share of the head output"),
    "sink_norm_ratio": (("head",), "mean of |o_sink| / |o|"),
    "parallel": (("part", "head"), "mean pairwise cosine across tokens of o, o_sink and o_rest"),
    "key_norm": (("kv_head", "token"), "length of each key after position encoding"),
    "value_norm": (("kv_head", "token"), "length of each value"),
    "sink_key": (("kv_head", "depth"), "mean key of the sinks"),
    "sink_value": (("kv_head", "value_depth"), "mean value of the sinks"),
    "query_cosine": (("head",), "mean cosine of queries and the mean sink key"),
    "other_cosine": (("head",), "mean cosine of queries and the mean key of all other tokens"),
    "sink_query": (("token",), "where the first sink's query looks, seeing the whole prompt, mean over heads"),
    "last_query": (("token",), "where the last token's query looks, mean over heads"),
}
#: What a head output is split into.
PARTS = ("whole", "sink", "rest")
