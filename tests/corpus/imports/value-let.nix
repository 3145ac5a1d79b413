{ ... }:
{
  imports =
    let
      here = ./.;
      list = [ ./not-here.nix ];
    in
    [
      (here + "/a.nix")
    ];
}
