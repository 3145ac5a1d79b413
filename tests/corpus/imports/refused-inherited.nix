{ ... }:
let imports = [ ]; in
{
  inherit imports;
}
