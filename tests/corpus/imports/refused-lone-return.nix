{ ... }:
{ # a  imports = [ ];
}
