# Attribute sets.
lib: let
  inherit
    (builtins)
    attrNames
    concatMap
    elemAt
    isAttrs
    length
    listToAttrs
    mapAttrs
    ;
  self = {
    inherit
      (builtins)
      attrNames
      attrValues
      catAttrs
      getAttr
      hasAttr
      intersectAttrs
      isAttrs
      listToAttrs
      mapAttrs
      removeAttrs
      zipAttrsWith
      ;

    nameValuePair = name: value: {inherit name value;};
    optionalAttrs = condition: attrs:
      if condition
      then attrs
      else {};
    attrByPath = path: default: attrs:
      if path == []
      then attrs
      else if isAttrs attrs && attrs ? ${builtins.head path}
      then self.attrByPath (builtins.tail path) default attrs.${builtins.head path}
      else default;
    hasAttrByPath = path: attrs:
      path
      == []
      || (isAttrs attrs && attrs ? ${builtins.head path} && self.hasAttrByPath (builtins.tail path) attrs.${builtins.head path});
    setAttrByPath = path: value:
      if path == []
      then value
      else {${builtins.head path} = self.setAttrByPath (builtins.tail path) value;};
    getAttrFromPath = path: attrs:
      self.attrByPath path (throw ("cannot find attribute `" + lib.concatStringsSep "." path + "'")) attrs;
    attrVals = names: attrs: map (name: attrs.${name}) names;
    getAttrs = names: attrs: self.genAttrs names (name: attrs.${name});
    filterAttrs = predicate: attrs:
      removeAttrs attrs (builtins.filter (name: !predicate name attrs.${name}) (attrNames attrs));
    filterAttrsRecursive = predicate: attrs:
      mapAttrs (_: value:
        if isAttrs value
        then self.filterAttrsRecursive predicate value
        else value) (
        self.filterAttrs predicate attrs
      );
    genAttrs = names: f: listToAttrs (map (name: self.nameValuePair name (f name)) names);
    genAttrs' = items: f: listToAttrs (map f items);
    mapAttrs' = f: attrs: listToAttrs (map (name: f name attrs.${name}) (attrNames attrs));
    mapAttrsToList = f: attrs: map (name: f name attrs.${name}) (attrNames attrs);
    attrsToList = self.mapAttrsToList self.nameValuePair;
    concatMapAttrs = f: attrs: self.mergeAttrsList (self.mapAttrsToList f attrs);
    mergeAttrsList = builtins.foldl' (a: b: a // b) {};
    mergeAttrs = a: b: a // b;
    foldlAttrs = f: initial: attrs:
      builtins.foldl' (state: name: f state name attrs.${name}) initial (attrNames attrs);
    foldAttrs = f: initial: sets:
      mapAttrs (_: lib.foldr f initial) (builtins.zipAttrsWith (_: values: values) sets);
    mapAttrsRecursive = self.mapAttrsRecursiveCond (_: true);
    mapAttrsRecursiveCond = condition: f: attrs: let
      go = path:
        mapAttrs (name: value:
          if isAttrs value && condition value
          then go (path ++ [name]) value
          else f (path ++ [name]) value);
    in
      go [] attrs;
    collect = predicate: attrs:
      if predicate attrs
      then [attrs]
      else if isAttrs attrs
      then concatMap (self.collect predicate) (builtins.attrValues attrs)
      else [];
    cartesianProduct = sets:
      builtins.foldl' (
        rows: name: concatMap (row: map (value: row // {${name} = value;}) sets.${name}) rows
      ) [{}] (attrNames sets);
    recursiveUpdateUntil = stop: left: right: let
      go = path:
        builtins.zipAttrsWith (
          name: values: let
            here = path ++ [name];
          in
            if length values == 1 || stop here (elemAt values 1) (elemAt values 0)
            then elemAt values 0
            else go here values
        );
    in
      go [] [right left];
    recursiveUpdate = self.recursiveUpdateUntil (_: left: right: !(isAttrs left && isAttrs right));
    zipAttrs = builtins.zipAttrsWith (_: values: values);
    isDerivation = value: value.type or null == "derivation";
    recurseIntoAttrs = attrs: attrs // {recurseForDerivations = true;};
    dontRecurseIntoAttrs = attrs: attrs // {recurseForDerivations = false;};
    getOutput = output: package:
      if package.outputSpecified or false
      then package
      else package.${output} or package.out or package;
    getBin = self.getOutput "bin";
    getLib = self.getOutput "lib";
    getDev = self.getOutput "dev";
    getMan = self.getOutput "man";
    toDerivation = path: let
      inStore = builtins.storePath path;
    in {
      type = "derivation";
      name = lib.sanitizeDerivationName (builtins.substring 33 (-1) (baseNameOf inStore));
      outPath = inStore;
      outputs = ["out"];
      outputName = "out";
    };
  };
in
  self
