#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Makes, of melu.h, the functions that the linker's --wrap puts in front of every public call that can fail: they hand
what the call may write and may change to faults.c, and repeat the call as often as faults.c asks for.
Usage: wrap_calls.py MELU_H SOURCE ARGUMENTS writes them, and the linker's arguments."""
import re
import sys

# How many elements a call may write, of those that can run out of memory; the others allocate nothing, says melu.h.
EXTENTS = {
    'melu_schema_field': {}, 'melu_dataset_user_values': {}, 'melu_dataset_item_values': {}, 'melu_split_order': {},
    'melu_model_read': {}, 'melu_gradient_read': {}, 'melu_gradient_read_rows': {}, 'melu_predict': {},
    'melu_predict_variance': {}, 'melu_catalog_score': {}, 'melu_catalog_score_list': {}, 'melu_catalog_top': {},
    'melu_catalog_top_users': {},
    'melu_dataset_add_user': {'index': '1'}, 'melu_dataset_add_item': {'index': '1'},
    'melu_dataset_find_user': {'out': '1'}, 'melu_dataset_find_item': {'out': '1'},
    'melu_model_get_options': {'options': '1'}, 'melu_model_param': {'out': '1'},
    'melu_model_digest': {'digest': 'MELU_DIGEST_BYTES'}, 'melu_shards_describe': {'info': '1'},
    'melu_user_save': {'bytes': '*n', 'n': '1'},
    'melu_explain': {'pulls': 'melu_user_ratings(user, NULL, NULL)'},
    'melu_candidates': {'items': '*n', 'scores': '*n', 'n': '1'},
    'melu_ask': {'items': '*n', 'gains': '*n', 'n': '1'},
    'melu_metrics_add': {'metrics': '1'}, 'melu_metrics_clicks': {'metrics': '1'}, 'melu_evaluate': {'out': '1'},
    'melu_choose': {'best': '1', 'errors': 'n'}, 'melu_group_member': {'collective': '1'},
}
HANDLES = 'context schema dataset batch model gradient optimizer workspace user catalog shard_writer shards group'.split()


class Parameter:
    def __init__(self, text):
        self.text = ' '.join(text.split())
        self.name = re.search(r'(\w+)(\[\w+\])?$', self.text).group(1)
        self.handle = next((h for h in HANDLES if re.match(rf'(const )?melu_{h} \*', self.text)), None)
        self.is_const = self.text.startswith('const ')
        self.is_new = '**' in self.text and self.handle is not None and not self.is_const
        self.is_error = self.text == 'melu_error *err'
        is_pointer = '*' in self.text or '[' in self.text
        is_free = self.is_const or self.is_error or self.handle or self.text == 'void *arg'
        self.is_written = is_pointer and not is_free


def functions(header):
    text = re.sub(r'/\*.*?\*/', '', header, flags=re.S)
    for name, parameters in re.findall(r'MELU_API melu_status (\w+)\(([^;]*)\);', text):
        yield name, [Parameter(p) for p in parameters.split(',')]


def wrapper(name, parameters):
    declared = ', '.join(p.text for p in parameters)
    call = f'__real_{name}({", ".join(p.name for p in parameters)})'
    by_handle = {p.handle: p.name for p in parameters if p.handle and not p.is_new}
    lines = [f'melu_status __real_{name}({declared});', f'melu_status __wrap_{name}({declared});',
             f'melu_status __wrap_{name}({declared}) {{', f'  if (!faults_enter("{name}")) return {call};']
    written = [p for p in parameters if p.is_written]
    if any(p.is_new for p in parameters):
        lines.append(f'  faults_new({parameters[0].name});')
    if written and name not in EXTENTS:
        sys.exit(f'wrap_calls.py: how much does {name} write?')
    for p in written:
        extent = EXTENTS[name].get(p.name)
        if extent is None and not EXTENTS[name]:
            lines.append('  faults_never();')
            break
        needs = ' && '.join(dict.fromkeys([p.name] + re.findall(r'\*(\w+)', extent)))
        lines.append(f'  if ({needs}) faults_written({p.name}, {extent}, sizeof *{p.name});')
    for p in parameters:
        if p.handle in ('schema', 'dataset', 'batch', 'model', 'user', 'catalog') and not p.is_const and not p.is_new:
            lines.append(f'  faults_changed(FAULTS_{p.handle.upper()}, {p.name});')
    if {'workspace', 'model', 'user', 'dataset'} <= by_handle.keys() and name not in EXTENTS:
        names = ', '.join(by_handle[h] for h in ('workspace', 'model', 'user', 'dataset'))
        lines.append(f'  faults_served({names});')
    if name in ('melu_fit', 'melu_fit_shards'):
        lines.append('  if (options && options->resume) faults_resumes();')
    lines += ['  melu_status status;', f'  do status = {call};', '  while (faults_again(status, err));',
              '  return status;', '}', '']
    return lines


def main():
    with open(sys.argv[1], encoding='utf-8') as file:
        found = [(n, p) for n, p in functions(file.read()) if n != 'melu_context_new']
    lines = ['/* Made by wrap_calls.py. */', '#include "faults.h"', '']
    for name, parameters in found:
        lines += wrapper(name, parameters)
    # faults.c and fault_files.c have the first three
    names = ['mkdtemp', 'fsync', 'melu_context_new'] + [name for name, _ in found]
    with open(sys.argv[2], 'w', encoding='utf-8') as file:
        file.write('\n'.join(lines))
    with open(sys.argv[3], 'w', encoding='utf-8') as file:
        file.write(''.join(f'--wrap={name}\n' for name in names))


main()
