# Attributes to TOML 1.0 (https://toml.io/en/v1.0.0): strings, integers, booleans, lists of those, tables, lists of tables.
# A `blank` among them is filled in on the host. It has a type of its own, so no text can be taken for one.
{ lib }:

let
  # JSON's escapes are TOML's, but TOML also wants DEL escaped. Nix strings hold no NUL.
  del = builtins.fromJSON ''"\u007f"'';
  string = text: builtins.replaceStrings [ del ] [ "\\u007f" ] (builtins.toJSON text);

  isBlank = value: builtins.isAttrs value && value._type or null == "blank";

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

  isTable = value: builtins.isAttrs value && !isBlank value;
  isTables = value: builtins.isList value && value != [ ] && builtins.all isTable value;

  # Each line is a list of texts and blanks.
  lines =
    path: attrs:
    let
      names = builtins.attrNames attrs;
      plain = builtins.filter (name: !(isTable attrs.${name} || isTables attrs.${name})) names;
      tables = builtins.filter (name: isTable attrs.${name}) names;
      lists = builtins.filter (name: isTables attrs.${name}) names;
      header = name: lib.concatStringsSep "." (path ++ [ name ]);
      line =
        name: value:
        [ "${name} = " ] ++ (if isBlank value then [ value ] else [ (scalar value) ]);
    in
    map (name: line name attrs.${name}) plain
    ++ lib.concatMap (
      name: [ [ "" ] [ "[${header name}]" ] ] ++ lines (path ++ [ name ]) attrs.${name}
    ) tables
    ++ lib.concatMap (
      name:
      lib.concatMap (table: [ [ "" ] [ "[[${header name}]]" ] ] ++ lines (path ++ [ name ]) table) attrs.${name}
    ) lists;

  # Neighbouring texts become one.
  joined =
    parts: part:
    if parts != [ ] && builtins.isString part && builtins.isString (lib.last parts) then
      lib.init parts ++ [ (lib.last parts + part) ]
    else
      parts ++ [ part ];
in
{
  # A string that is filled in on the host, under this name.
  blank = name: {
    _type = "blank";
    inherit name;
  };

  # The document as a list of texts with blanks between them.
  parts = attrs: builtins.foldl' joined [ ] (lib.concatMap (line: line ++ [ "\n" ]) (lines [ ] attrs));
}
