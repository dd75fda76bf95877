"""Chat templates of the structure that Gemma 4's own have, for tests. Written here, and shorter: a system turn with
the thinking mark and the tools, calls and results inside the model's turn, thoughts only between the calls of the last
turn, old ones cut out of the text; the large models' ends with an empty thought where thinking is off.
"""

_HEAD = """\
{%- macro value(x) -%}
  {%- if x is string -%}{{ '<|"|>' + x + '<|"|>' }}
  {%- elif x is boolean -%}{{ 'true' if x else 'false' }}
  {%- elif x is mapping -%}{{ '{' }}{{ pairs(x) }}{{ '}' }}
  {%- elif x is sequence -%}[{%- for y in x -%}{{ value(y) }}{{ ',' if not loop.last }}{%- endfor -%}]
  {%- else -%}{{ x }}{%- endif -%}
{%- endmacro -%}
{%- macro pairs(x) -%}
  {%- for k, v in x | dictsort -%}{{ k }}:{{ value(v) }}{{ ',' if not loop.last }}{%- endfor -%}
{%- endmacro -%}
{%- macro without_thoughts(text) -%}
  {%- set kept = namespace(text='') -%}
  {%- for piece in text.split('<channel|>') -%}{%- set kept.text = kept.text + piece.split('<|channel>')[0] -%}
  {%- endfor -%}
  {{- kept.text | trim -}}
{%- endmacro -%}
{%- macro result(name, body) -%}
  {{- '<|tool_response>response:' + name + '{' -}}
  {{- pairs(body) if body is mapping else 'value:' + value(body) -}}
  {{- '}<tool_response|>' -}}
{%- endmacro -%}
{%- set state = namespace(open=false, user=-1) -%}
{{- bos_token -}}
{%- set has_system = messages[0]['role'] in ['system', 'developer'] -%}
{%- if enable_thinking | default(false) or tools or has_system -%}
  {{- '<|turn>system\\n' + ('<|think|>\\n' if enable_thinking | default(false) else '') -}}
  {{- messages[0]['content'] | trim if has_system -}}
  {%- for tool in tools or [] -%}
    {{- '<|tool>declaration:' + tool['function']['name'] + '{' + pairs(tool['function']) + '}<tool|>' -}}
  {%- endfor -%}
  {{- '<turn|>\\n' -}}
{%- endif -%}
{%- set turns = messages[1:] if has_system else messages -%}
{%- for m in turns if m['role'] == 'user' -%}{%- set state.user = turns.index(m) -%}{%- endfor -%}
"""
_TURNS = """\
{%- for m in turns if m['role'] != 'tool' -%}
  {%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}
  {{- '<|turn>' + role + '\\n' if not (state.open and role == 'model') -}}
  {%- set state.open = false -%}
  {%- if m['tool_calls'] -%}
    {%- set thought = m['reasoning'] or m['reasoning_content'] -%}
    {{- '<|channel>thought\\n' + thought + '\\n<channel|>' if thought and turns.index(m) > state.user -}}
    {%- for call in m['tool_calls'] -%}
      {%- set a = call['function']['arguments'] -%}
      {{- raise_exception('arguments must be an object') if a is string -}}
      {{- '<|tool_call>call:' + call['function']['name'] + '{' + pairs(a) + '}<tool_call|>' -}}
    {%- endfor -%}
    {%- for r in m['tool_responses'] or [] -%}
      {{- result(r['name'], r['response']) -}}{%- set state.open = true -%}
    {%- endfor -%}
    {%- for r in turns[turns.index(m) + 1:] -%}
      {%- if r['role'] != 'tool' -%}{%- break -%}{%- endif -%}
      {{- result(r['name'], r['content']) -}}{%- set state.open = true -%}
    {%- endfor -%}
  {%- endif -%}
  {{- without_thoughts(m['content']) if role == 'model' else m['content'] | trim -}}
  {{- '<turn|>\\n' if m['content'] or not state.open -}}
{%- endfor -%}
{%- if add_generation_prompt and not state.open -%}
  {{- '<|turn>model\\n' -}}
"""
_END = "{%- endif -%}\n"
_EMPTY_THOUGHT = "  {{- '<|channel>thought\\n<channel|>' if not enable_thinking | default(false) -}}\n"

SMALL = _HEAD + _TURNS + _END  # as E2B's and E4B's
LARGE = _HEAD + _TURNS + _EMPTY_THOUGHT + _END  # as 26B's and 31B's
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a place.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
