#!/usr/bin/env python3
"""gen.py — reads schema/*.msg, writes gen/messages.h (C structs) and gen/messages.c (schema tables).

Format of a .msg file, a line each:
    # text                                    comment; the first one tells what the message is for
    api NAME key=K versions=A-B flexible=C+|none [advertise=A-B]     then sections `request` and `response`
    data NAME versions=A-B flexible=C+|none                          then a section `fields`
    Field type versions [attributes]  -- meaning                     indented by 4 for each level of nesting
Types: bool int8 int16 int32 int64 float64 uuid string bytes records, the name of a struct whose fields follow indented,
and []T. Versions: 3, 3-5, 3+. Attributes: nullable=V, default=X, tag=N (tagged in all its versions, or in
tagged=V), ignorable (dropped when a version lacks it), noflex, secret, entity=WHAT (for the reader).

Usage: gen.py [output directory]. The output is checked in; a test compares it with a fresh run."""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
OPEN = 32767
PLAIN = {'bool': 'bool', 'int8': 'int8_t', 'int16': 'int16_t', 'int32': 'int32_t', 'int64': 'int64_t', 'float64': 'double',
         'uuid': 'struct vv_uuid', 'string': 'struct vv_str', 'bytes': 'struct vv_bytes',
         'records': 'struct vv_records'}
KNOWN = {'nullable', 'default', 'tag', 'tagged', 'ignorable', 'noflex', 'secret', 'entity'}


def versions(text):
    """'3+' -> (3, OPEN), '3-5' -> (3, 5), '3' -> (3, 3)."""
    if text.endswith('+'):
        return int(text[:-1]), OPEN
    first, _, last = text.partition('-')
    return int(first), int(last or first)


class Field:
    def __init__(self, text, where):
        text, _, self.meaning = text.partition('  -- ')
        words = text.split()
        if len(words) < 3 or not self.meaning:
            sys.exit(f'{where}: want "Field type versions [attributes]  -- meaning"')
        self.name, self.type = words[0], words[1]
        self.array = self.type.startswith('[]')
        self.elem = self.type[2:] if self.array else self.type
        self.versions = versions(words[2])
        self.attributes = dict((w.partition('=')[0], w.partition('=')[2]) for w in words[3:])
        for name in self.attributes:
            if name not in KNOWN:
                sys.exit(f'{where}: unknown attribute {name}')
        self.fields = []

    def range(self, name):
        return versions(self.attributes[name]) if name in self.attributes else (OPEN, OPEN)

    def tagged(self):
        if 'tag' not in self.attributes:
            return OPEN, OPEN
        return self.range('tagged') if 'tagged' in self.attributes else self.versions

    def pointer(self):
        return self.elem not in PLAIN and not self.array and 'nullable' in self.attributes

    def flags(self):
        bits = [name for name, on in (
            ('VV_F_IGNORABLE', 'ignorable' in self.attributes),
            ('VV_F_DEF_NULL', self.attributes.get('default') == 'null'),
            ('VV_F_POINTER', self.pointer()),
            ('VV_F_NOFLEX', 'noflex' in self.attributes),
            ('VV_F_SECRET', 'secret' in self.attributes)) if on]
        return ' | '.join(bits) or '0'

    def default(self):
        text = self.attributes.get('default', '0')
        if text == '-2147483648':
            return 'INT32_MIN'
        if text == '9223372036854775807':
            return 'INT64_MAX'
        return {'null': '0', 'true': '1', 'false': '0'}.get(text, text)


class Message:
    """One schema: a request, a response or a data record."""

    def __init__(self, name, low, high, flexible, fields, purpose):
        self.name, self.low, self.high, self.flexible = name, low, high, flexible
        self.fields, self.purpose = fields, purpose

    def structs(self):
        """(C name, fields) of the nested structs, inner ones first, then the message itself."""
        found, names = [], set()

        def walk(fields):
            for f in fields:
                if f.fields:
                    walk(f.fields)
                    if f.elem in names:
                        sys.exit(f'{self.name}: struct {f.elem} twice')
                    names.add(f.elem)
                    found.append((f'{self.name}_{f.elem}', f.fields))
        walk(self.fields)
        return found + [(self.name, self.fields)]


def read(path):
    """-> (kind, name, attributes, [Message])"""
    kind = name = section = None
    attributes, purpose, sections, stack = {}, '', {}, []
    for number, line in enumerate(open(path, encoding='utf-8'), 1):
        line, where = line.rstrip(), f'{path}:{number}'
        if not line:
            continue
        if line.startswith('#'):
            purpose = purpose or line[1:].strip()
        elif not line.startswith(' '):
            words = line.split()
            if words[0] in ('api', 'data'):
                kind, name = words[:2]
                attributes = dict(w.split('=') for w in words[2:])
            else:
                section, stack = words[0], [sections.setdefault(words[0], [])]
        else:
            depth = (len(line) - len(line.lstrip())) // 4
            if not section or depth > len(stack):
                sys.exit(f'{where}: bad indentation')
            field = Field(line.strip(), where)
            del stack[depth:]
            stack[depth - 1].append(field)
            stack.append(field.fields)
    low, high = versions(attributes['versions'])
    flexible = OPEN if attributes['flexible'] == 'none' else versions(attributes['flexible'])[0]
    suffix = {'request': 'Request', 'response': 'Response', 'fields': ''}
    return kind, name, attributes, [Message(name + suffix[s], low, high, flexible, fields, purpose)
                                    for s, fields in sections.items()]


def member(message, field):
    kind = PLAIN.get(field.elem) or f'struct {message.name}_{field.elem}'
    if field.array:
        return f'    struct {{ {kind} *v; int32_t n; }} {field.name};'
    return f'    {kind} {"*" if field.pointer() else ""}{field.name};'


def header(messages):
    out = ['/* messages.h — Kafka\'s messages as C structs. Generated by src/wire/gen.py from src/wire/schema/: do not edit.',
           ' * Rules of use and shapes: varve/wire.h. After each field: the versions that have it. */',
           '#ifndef VARVE_GEN_MESSAGES_H', '#define VARVE_GEN_MESSAGES_H', '#include "varve/wire.h"']
    for message in messages:
        out += ['', f'/* {message.name} {message.low}-{message.high}. {message.purpose} */']
        for name, fields in message.structs():
            out.append(f'struct {name} {{')
            for f in fields:
                low, high = f.versions
                span = f'{low}+' if high == OPEN else str(low) if low == high else f'{low}-{high}'
                null = ', may be null' if 'nullable' in f.attributes else ''
                tag = ', tagged' if 'tag' in f.attributes else ''
                out += [f'{member(message, f)} /* {span}{null}{tag}: {f.meaning} */']
            out.append('};')
        for name, _ in message.structs():
            out.append(f'extern const struct vv_msg_struct vv_struct_{name};')
        out.append(f'extern const struct vv_msg_schema vv_schema_{message.name};')
    return '\n'.join(out + ['#endif', ''])


def row(message, name, f):
    sub = f'&vv_struct_{message.name}_{f.elem}' if f.fields else 'NULL'
    scalar = 'VV_T_' + (f.elem.upper() if f.elem in PLAIN else 'STRUCT')
    kind = ('VV_T_ARRAY', scalar) if f.array else (scalar, '0')
    null, tagged = f.range('nullable'), f.tagged()
    return (f'    {{"{f.name}", {sub}, {f.default()}, (uint16_t)offsetof(struct {name}, {f.name}), {f.flags()},\n'
            f'     {kind[0]}, {kind[1]}, {f.versions[0]}, {f.versions[1]}, {null[0]}, {null[1]}, '
            f'{f.attributes.get("tag", -1)}, {tagged[0]}, {tagged[1]}}},')


def tables(messages, apis):
    out = ['/* messages.c — schema tables of every message, and the table of APIs. Generated by src/wire/gen.py from',
           ' * src/wire/schema/: do not edit. */', '#include "messages.h"', '', '#include <stddef.h>']
    for message in messages:
        out.append('')
        for name, fields in message.structs():
            out.append(f'static const struct vv_msg_field fields_{name}[] = {{')
            out += [row(message, name, f) for f in fields]
            out += ['};', f'const struct vv_msg_struct vv_struct_{name} = {{',
                    f'    "{name}", fields_{name}, {len(fields)}, (uint16_t)sizeof(struct {name})}};']
        out += [f'const struct vv_msg_schema vv_schema_{message.name} = {{',
                f'    "{message.name}", &vv_struct_{message.name}, {message.low}, {message.high}, {message.flexible}}};']
    out += ['', 'const struct vv_api vv_apis[] = {']
    for key, name, low, high, flexible in sorted(apis):
        out.append(f'    {{{key}, "{name}", &vv_schema_{name}Request, &vv_schema_{name}Response, {low}, {high}, '
                   f'{flexible}}},')
    out += ['};', 'const size_t vv_apis_count = sizeof vv_apis / sizeof vv_apis[0];']
    out += ['', '/* Every schema by name, for tests and tools; ends with NULL. */',
            'const struct vv_msg_schema *const vv_schemas[] = {']
    out += [f'    &vv_schema_{m.name},' for m in messages]
    return '\n'.join(out + ['    NULL,', '};', ''])


def main():
    target = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, 'gen')
    messages, apis = [], []
    schema = os.path.join(HERE, 'schema')
    for file in sorted(os.listdir(schema)):
        if not re.fullmatch(r'\w+\.msg', file):
            continue
        kind, name, attributes, parts = read(os.path.join(schema, file))
        messages += parts
        if kind == 'api':
            low, high = versions(attributes.get('advertise', attributes['versions']))
            apis.append((int(attributes['key']), name, low, high, parts[0].flexible))
    os.makedirs(target, exist_ok=True)
    for file, text in (('messages.h', header(messages)), ('messages.c', tables(messages, apis))):
        with open(os.path.join(target, file), 'w', encoding='utf-8') as f:
            f.write(text)


main()
