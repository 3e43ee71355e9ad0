# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Completes the command line of melu(1) in bash. What there is, it asks the program's own --help.

# _melu_names PROGRAM [COMMAND]: the names of the commands, or of the command's options, a line each.
_melu_names() {
  "$@" --help 2> /dev/null | sed -n '/^[a-z]*:$/,/^$/s/^  \(-\{0,2\}[a-z][a-z-]*\) .*/\1/p'
}

_melu() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
  local program=${COMP_WORDS[0]} command=${COMP_WORDS[1]} words=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ] || { [ "$command" = help ] && [ "$COMP_CWORD" -eq 2 ]; }; then
    words="$(_melu_names "$program") --help"
  else
    case $before in
      --preset) words='best melu' ;;
      --format) words='table csv tsv json' ;;
      --rule) words='error gradient' ;;
      --items | --ratings | --users | --user | --model | --checkpoint | --shards | --out | --svg | --from | --description) ;;
      *) case $word in -*) words=$(_melu_names "$program" "$command") ;; esac ;;
    esac
  fi
  if [ -n "$words" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  else
    compopt -o filenames 2> /dev/null # fails outside of a completion
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}
complete -F _melu melu
