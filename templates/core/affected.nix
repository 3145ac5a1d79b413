# The advisories for a release of Nix, and the release that mends them; null when the version is no release.
# provisioner/advisories.py has the same rules; tests/contract/test_advisories_nix.py compares the two.
{
  advisories,
  product,
  version,
}:

let
  isNumber = part: builtins.match "[0-9]+" part != null;

  # "2.31.4pre2026_abc" is { branch = "2.31"; release = "2.31.4"; isEarly = true; }
  parse =
    text:
    let
      parts = builtins.splitVersion text;
      at = n: if n < builtins.length parts then builtins.elemAt parts n else "";
      patch = if isNumber (at 2) then at 2 else "0";
    in
    if isNumber (at 0) && isNumber (at 1) then
      {
        branch = "${at 0}.${at 1}";
        release = "${at 0}.${at 1}.${patch}";
        isEarly = at (if isNumber (at 2) then 3 else 2) == "pre";
        next = "${at 0}.${toString (builtins.fromJSON (at 1) + 1)}.0";
      }
    else
      null;

  # Whether `found` is `release` or newer. A pre-release of the same number is older.
  atLeast =
    release: found:
    let
      order = builtins.compareVersions found.release release;
    in
    order > 0 || order == 0 && !found.isEarly;

  # By branch; a newer branch than all of them counts as the last one.
  reached =
    releases: found:
    let
      known = map parse releases;
      same = builtins.filter (one: one.branch == found.branch) known;
      last = builtins.elemAt known (builtins.length known - 1);
    in
    if same != [ ] then atLeast (builtins.head same).release found else atLeast last.next found;

  holds =
    found: advisory:
    let
      range = advisory.affected.${product};
      isBegun = !(range ? from) || reached range.from (found // { isEarly = false; });
    in
    advisory.affected ? ${product} && isBegun && !(reached range.fixed found);

  of = found: builtins.filter (holds found) advisories;
  isRoot = advisory: advisory.severity == "root";

  # The lowest newer release without a way to root.
  fixes = builtins.concatLists (map (one: one.affected.${product}.fixed or [ ]) advisories);
  isMend =
    found: release:
    builtins.compareVersions release found.release >= 0 && builtins.filter isRoot (of (parse release)) == [ ];

  found = parse version;
in
if found == null || fixes == [ ] then
  null
else
  {
    root = builtins.filter isRoot (of found);
    less = builtins.filter (one: !isRoot one) (of found);
    mended = builtins.foldl' (
      least: release:
      if isMend found release && (least == "" || builtins.compareVersions release least < 0) then
        release
      else
        least
    ) "" fixes;
  }
