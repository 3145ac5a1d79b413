# Attributes to TOML 1.0 (https://toml.io/en/v1.0.0): strings, integers, booleans, lists of those, tables, lists of tables.
{ lib }:

let
  # JSON's escapes are TOML's, but TOML also wants DEL escaped. Nix strings hold no NUL.
  del = builtins.fromJSON ''"\u007f"'';
  string = text: builtins.replaceStrings [ del ] [ "\\u007f" ] (builtins.toJSON text);

  scalar =
    value:
    if builtins.isString value then
      string value
    else if builtins.isBool value then
      (if value then "true" else "false")
    else if builtins.isInt value then
      toString value
    else if builtins.isList value then
      "[" + lib.concatMapStringsSep ", " scalar value + "]"
    else
      throw "toml.nix: no ${builtins.typeOf value} here";

  isTables = value: builtins.isList value && value != [ ] && builtins.all builtins.isAttrs value;

  lines =
    path: attrs:
    let
      names = builtins.attrNames attrs;
      plain = builtins.filter (name: !(builtins.isAttrs attrs.${name} || isTables attrs.${name})) names;
      tables = builtins.filter (name: builtins.isAttrs attrs.${name}) names;
      lists = builtins.filter (name: isTables attrs.${name}) names;
      header = name: lib.concatStringsSep "." (path ++ [ name ]);
    in
    map (name: "${name} = ${scalar attrs.${name}}") plain
    ++ lib.concatMap (
      name: [ "" "[${header name}]" ] ++ lines (path ++ [ name ]) attrs.${name}
    ) tables
    ++ lib.concatMap (
      name:
      lib.concatMap (table: [ "" "[[${header name}]]" ] ++ lines (path ++ [ name ]) table) attrs.${name}
    ) lists;
in
attrs: lib.concatStringsSep "\n" (lines [ ] attrs) + "\n"
