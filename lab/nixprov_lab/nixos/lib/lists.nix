# Lists.
lib: let
  inherit
    (builtins)
    elem
    elemAt
    filter
    foldl'
    genList
    head
    length
    ;
  self = {
    inherit
      (builtins)
      all
      any
      concatLists
      concatMap
      elem
      elemAt
      filter
      foldl'
      genList
      head
      isList
      length
      map
      partition
      sort
      tail
      groupBy
      ;

    singleton = item: [item];
    optional = condition: item:
      if condition
      then [item]
      else [];
    optionals = condition: items:
      if condition
      then items
      else [];
    toList = value:
      if builtins.isList value
      then value
      else [value];
    forEach = items: f: map f items;
    range = first: last:
      if first > last
      then []
      else genList (n: first + n) (last - first + 1);
    replicate = n: item: genList (_: item) n;
    imap0 = f: items: genList (n: f n (elemAt items n)) (length items);
    imap1 = f: items: genList (n: f (n + 1) (elemAt items n)) (length items);
    foldr = f: initial: items: let
      go = n:
        if n == length items
        then initial
        else f (elemAt items n) (go (n + 1));
    in
      go 0;
    fold = self.foldr;
    foldl = f: initial: items: let
      go = n:
        if n < 0
        then initial
        else f (go (n - 1)) (elemAt items n);
    in
      go (length items - 1);
    flatten = value:
      if builtins.isList value
      then builtins.concatMap self.flatten value
      else [value];
    remove = item: filter (other: other != item);
    count = predicate: items: length (filter predicate items);
    findFirst = predicate: default: items: let
      found = filter predicate items;
    in
      if found == []
      then default
      else head found;
    findSingle = predicate: none: many: items: let
      found = filter predicate items;
    in
      if found == []
      then none
      else if length found > 1
      then many
      else head found;
    take = n: items: self.sublist 0 n items;
    drop = n: items: self.sublist n (length items) items;
    sublist = start: n: items: let
      available = length items - start;
      wanted =
        if available < n
        then available
        else n;
    in
      genList (i: elemAt items (start + i)) (
        if wanted < 0
        then 0
        else wanted
      );
    last = items:
      if items == []
      then throw "lists.last: list must not be empty!"
      else elemAt items (length items - 1);
    init = items:
      if items == []
      then throw "lists.init: list must not be empty!"
      else self.take (length items - 1) items;
    reverseList = items: let
      n = length items;
    in
      genList (i: elemAt items (n - i - 1)) n;
    sortOn = key: builtins.sort (a: b: key a < key b);
    naturalSort = builtins.sort (a: b: builtins.compareVersions a b < 0);
    unique = foldl' (seen: item:
      if elem item seen
      then seen
      else seen ++ [item]) [];
    uniqueStrings = items: builtins.attrNames (builtins.groupBy (item: item) items);
    allUnique = items: length (self.unique items) == length items;
    subtractLists = unwanted: filter (item: !elem item unwanted);
    intersectLists = wanted: filter (item: elem item wanted);
    mutuallyExclusive = a: b: !builtins.any (item: elem item a) b;
    zipListsWith = f: a: b:
      genList (n: f (elemAt a n) (elemAt b n)) (lib.min (length a) (length b));
    zipLists = self.zipListsWith (fst: snd: {inherit fst snd;});
    crossLists = f: foldl' (fs: items: builtins.concatMap (g: map g items) fs) [f];
    concat = a: b: a ++ b;
  };
in
  self
