# Parts of version numbers.
lib: let
  part = n: version: builtins.elemAt (builtins.splitVersion version) n;
in {
  inherit (builtins) splitVersion;
  major = part 0;
  minor = part 1;
  patch = part 2;
  majorMinor = version: "${part 0 version}.${part 1 version}";
}
