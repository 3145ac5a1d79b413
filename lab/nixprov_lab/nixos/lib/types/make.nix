# The shape of a type, and functions for simple types.
lib: let
  inherit (builtins) elem isString;
  inherit (lib) mergeEqualOption;

  # `joined` is the type of an option that is declared with this type and another; null when they do not go together.
  mkOptionType = {
    name,
    description ? name,
    descriptionClass ? null,
    check ? _: true,
    merge ? lib.mergeDefaultOption,
    emptyValue ? {},
    getSubOptions ? _: {},
    getSubModules ? null,
    substSubModules ? _: null,
    nestedTypes ? {},
    typeMerge ? null,
    functor ? null,
    deprecationMessage ? null,
    joined ? null,
    inner ? null,
  }: let
    self = {
      _type = "option-type";
      inherit
        name
        description
        descriptionClass
        check
        merge
        emptyValue
        getSubOptions
        getSubModules
        substSubModules
        nestedTypes
        deprecationMessage
        ;
      joined =
        if joined != null
        then joined
        else
          other:
            if other.name == name && nestedTypes == {}
            then self
            else null;
      functor = {
        inherit name;
        wrapped = inner;
        payload = null;
      };
    };
  in
    self;

  phrase = type:
    if elem type.descriptionClass ["conjunction" "composite"]
    then "(${type.description})"
    else type.description;

  simple = name: description: check:
    mkOptionType {
      inherit name description check;
      descriptionClass = "noun";
      merge = mergeEqualOption;
    };

  separated = separator: name: description:
    mkOptionType {
      inherit name description;
      descriptionClass = "noun";
      check = isString;
      merge = _: definitions: lib.concatStringsSep separator (lib.getValues definitions);
    };
in {
  inherit mkOptionType phrase simple separated;
}
