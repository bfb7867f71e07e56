"""OpenAI's own Python client against a server: `python bench/clients/openai_python.py URL` (needs `pip install openai`)."""

import json
import sys

import openai
from pydantic import BaseModel

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:5827"
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "Name three colours."}]
plain = dict(model=model, messages=messages, temperature=0, max_tokens=24)

chat = client.chat.completions.create(**plain)
text = chat.choices[0].message.content
assert text and chat.usage.completion_tokens > 0

streamed, usage = "", None
for chunk in client.chat.completions.create(**plain, stream=True, stream_options={"include_usage": True}):
    streamed += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    usage = chunk.usage or usage
assert streamed == text and usage.completion_tokens == chat.usage.completion_tokens

completion = client.completions.create(model=model, prompt="One, two, three,", max_tokens=6, temperature=0, logprobs=2)
assert "four" in completion.choices[0].text and len(completion.choices[0].logprobs.tokens) == 6

probable = client.chat.completions.create(**{**plain, "max_tokens": 3}, logprobs=True, top_logprobs=5)
assert [len(c.top_logprobs) for c in probable.choices[0].logprobs.content] == [5, 5, 5]

stop = text[5:9]
assert client.chat.completions.create(**plain, stop=stop).choices[0].message.content == text[: text.index(stop)]

seeded = {**plain, "temperature": 1, "seed": 11, "max_tokens": 12}
twice = [client.chat.completions.create(**seeded).choices[0].message.content for _ in range(2)]
assert twice[0] == twice[1]

tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}}}]
asked = dict(model=model, messages=[{"role": "user", "content": "Weather in Oslo?"}], tools=tools, temperature=0, max_tokens=100)
called = client.chat.completions.create(**asked, tool_choice={"type": "function", "function": {"name": "get_weather"}})
call = called.choices[0].message.tool_calls[0]
assert called.choices[0].finish_reason == "tool_calls" and json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")
with client.chat.completions.stream(**asked, tool_choice="required") as stream:
    final = stream.get_final_completion()
assert final.choices[0].message.tool_calls[0].function.name == "get_weather"
client.chat.completions.create(**{**asked, "messages": [*asked["messages"], called.choices[0].message, {
    "role": "tool", "tool_call_id": call.id, "content": "Sunny"}]})


class Colours(BaseModel):
    """What `parse` turns into a strict schema."""

    first: str
    count: int
    warm: bool | None


parsed = client.chat.completions.parse(**{**plain, "max_tokens": 200}, response_format=Colours)
if parsed.choices[0].finish_reason == "stop":
    assert isinstance(parsed.choices[0].message.parsed, Colours)

for body, error in [({"model": "other"}, openai.NotFoundError), ({"temperature": -1}, openai.BadRequestError), ({"messages": []}, openai.BadRequestError)]:
    try:
        client.chat.completions.create(**{**plain, **body})
        raise AssertionError(f"{body} was taken")
    except error as caught:
        assert caught.body["message"]
print("openai (Python): chat, completions, streaming, logprobs, stop, seed, tools, json_schema, errors pass")
